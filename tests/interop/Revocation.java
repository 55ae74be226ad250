import java.io.ByteArrayInputStream;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.*;
import java.util.*;

/**
 * What Java's own path validation says: java Revocation.java ROOT ISSUING OCSP-URL LEAF[,CRL]...
 *
 * For each leaf it prints two lines, "NAME crl VERDICT" by the CRLs in the directory after the comma, and
 * "NAME ocsp VERDICT" by the responder.
 */
class Revocation {
    static final CertificateFactory X509 = factory();

    public static void main(String[] arguments) throws Exception {
        X509Certificate root = certificate(arguments[0]), issuing = certificate(arguments[1]);
        URI responder = URI.create(arguments[2]);
        for (String argument : Arrays.asList(arguments).subList(3, arguments.length)) {
            String[] parts = argument.split(",");
            Path leaf = Path.of(parts[0]);
            CertPath path = X509.generateCertPath(List.of(certificate(parts[0]), issuing));
            Set<CRL> crls = new HashSet<>();
            for (int i = 1; i < parts.length; i++) {
                crls.add(X509.generateCRL(new ByteArrayInputStream(Files.readAllBytes(Path.of(parts[i])))));
            }
            CertPathValidator validator = CertPathValidator.getInstance("PKIX");
            PKIXRevocationChecker byCrl = (PKIXRevocationChecker) validator.getRevocationChecker();
            byCrl.setOptions(EnumSet.of(
                PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
            System.out.println(leaf.getFileName() + " crl " + verdict(validator, path, root, byCrl, crls));
            PKIXRevocationChecker byOcsp = (PKIXRevocationChecker) validator.getRevocationChecker();
            byOcsp.setOptions(EnumSet.of(
                PKIXRevocationChecker.Option.ONLY_END_ENTITY, PKIXRevocationChecker.Option.NO_FALLBACK));
            byOcsp.setOcspResponder(responder);
            System.out.println(leaf.getFileName() + " ocsp " + verdict(validator, path, root, byOcsp, Set.of()));
        }
    }

    static String verdict(CertPathValidator validator, CertPath path, X509Certificate root,
            PKIXRevocationChecker checker, Set<CRL> crls) throws Exception {
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(crls)));
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(path, parameters);
            return "good";
        } catch (CertPathValidatorException refused) {
            String reason = refused.getReason().toString();
            if (refused.getCause() instanceof CertificateRevokedException revoked) {
                reason += " " + revoked.getRevocationReason();
            }
            return reason + " (" + refused.getMessage() + ")";
        }
    }

    static X509Certificate certificate(String file) throws Exception {
        return (X509Certificate) X509.generateCertificate(new ByteArrayInputStream(Files.readAllBytes(Path.of(file))));
    }

    static CertificateFactory factory() {
        try {
            return CertificateFactory.getInstance("X.509");
        } catch (CertificateException impossible) {
            throw new AssertionError(impossible);
        }
    }
}
