// A workload written with java-spiffe, for the tests.
//
//	Peer calls AUDIENCE     every method of the Workload API once; what they say, as JSON
//	Peer ask URL ID N       N requests to a server that proves ID, a connection each, while rotations come ($ROTATIONS)

import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import java.math.BigInteger;
import java.net.URI;
import java.security.cert.X509Certificate;
import java.util.HashSet;
import java.util.Set;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;

public class Peer {
    public static void main(String[] words) throws Exception {
        try {
            if (words[0].equals("calls")) {
                calls(words[1]);
            } else {
                ask(words[1], SpiffeId.parse(words[2]), Integer.parseInt(words[3]));
            }
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);  // the library's threads would go on
        }
        System.exit(0);
    }

    static void calls(String audience) throws Exception {
        try (var client = DefaultWorkloadApiClient.newClient()) {
            var x509 = client.fetchX509Context();
            var bundles = client.fetchX509Bundles();
            var jwt = client.fetchJwtSvid(audience);
            var keys = client.fetchJwtBundles();
            var valid = client.validateJwtSvid(jwt.getToken(), audience);
            System.out.printf(
                    "{\"id\": \"%s\", \"chain\": %d, \"bundles\": %d, \"jwt\": \"%s\", \"keys\": %d, \"valid\": \"%s\"}%n",
                    x509.getDefaultSvid().getSpiffeId(), x509.getDefaultSvid().getChain().size(),
                    bundles.getBundles().size(), jwt.getSpiffeId(), keys.getBundles().size(), valid.getSpiffeId());
        }
    }

    static void ask(String url, SpiffeId peer, int least) throws Exception {
        var rotations = Integer.parseInt(System.getenv().getOrDefault("ROTATIONS", "0"));
        var wanted = System.getenv().getOrDefault("SPIFFE_ID", "");
        var options = DefaultX509Source.X509SourceOptions.builder()
                .svidPicker(all -> all.stream().filter(one -> one.getSpiffeId().toString().equals(wanted)).findFirst()
                        .orElse(all.get(0)))
                .build();
        var source = DefaultX509Source.newSource(options);
        Set<BigInteger> ours = new HashSet<>(), theirs = new HashSet<>();
        var asked = 0;
        var until = System.nanoTime() + 300_000_000_000L;
        while (asked < least || ours.size() <= rotations) {
            if (System.nanoTime() > until) {
                throw new IllegalStateException(ours.size() + " certificates in " + asked + " requests");
            }
            // A context of its own for each: the JDK keeps sessions in one, and resumes them.
            SSLContext context = SpiffeSslContextFactory.getSslContext(
                    SpiffeSslContextFactory.SslContextOptions.builder().sslProtocol("TLSv1.3").x509Source(source)
                            .acceptedSpiffeIdsSupplier(() -> Set.of(peer)).build());
            ours.add(source.getX509Svid().getLeaf().getSerialNumber());
            var connection = (HttpsURLConnection) URI.create(url).toURL().openConnection();
            connection.setSSLSocketFactory(context.getSocketFactory());
            connection.setHostnameVerifier((host, session) -> true);  // who answers is said by the SPIFFE ID
            connection.setRequestProperty("Connection", "close");
            connection.setConnectTimeout(20_000);
            connection.setReadTimeout(20_000);
            if (connection.getResponseCode() != 200) {
                throw new IllegalStateException("request " + asked + ": status " + connection.getResponseCode());
            }
            connection.getInputStream().readAllBytes();
            theirs.add(((X509Certificate) connection.getServerCertificates()[0]).getSerialNumber());
            connection.disconnect();
            asked++;
        }
        System.out.printf("{\"asked\": %d, \"ours\": %d, \"theirs\": %d}%n", asked, ours.size(), theirs.size());
    }
}
