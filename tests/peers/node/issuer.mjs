// An issuer of OpenID Connect that people run: it gives clients JWT access tokens, signed by the key of that name.
// node issuer.mjs PORT TLS-KEY TLS-CERTIFICATE JWKS (a file with private keys, of which the first signs)
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Provider from "oidc-provider";

const [port, key, certificate, jwks] = process.argv.slice(2);
const provider = new Provider(`https://localhost:${port}`, {
  jwks: JSON.parse(readFileSync(jwks)),
  clients: [
    {
      client_id: "deploy",
      client_secret: "not-a-secret-of-anybody",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  extraTokenClaims: () => ({ repository: "org/api", realm: { roles: ["deployer"] } }),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "",
        audience: resource,
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
const tls = { key: readFileSync(key), cert: readFileSync(certificate) };
createServer(tls, provider.callback()).listen(Number(port), "127.0.0.1", () => console.log("ready"));
