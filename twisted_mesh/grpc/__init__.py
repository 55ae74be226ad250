"""gRPC over HTTP/2 (h2), on Twisted's reactor: servers and clients of the SPIFFE Workload API and of Envoy's SDS."""
