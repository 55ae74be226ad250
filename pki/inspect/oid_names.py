"""What object identifiers are called: algorithms, attributes, extensions and usages, as people write them."""

import re

from cryptography import x509
from cryptography.x509.oid import (
    ExtendedKeyUsageOID,
    PublicKeyAlgorithmOID,
    SignatureAlgorithmOID,
)


def _names(oids: type) -> dict[str, str]:
    """What cryptography calls OIDs, as people write it: ``ECDSA with SHA-256``."""
    return {
        oid.dotted_string: re.sub(
            r"SHA(?=\d{3}|1$)", "SHA-", name.replace("_WITH_", " with ").replace("_", "-")
        )
        for name, oid in vars(oids).items()
        if isinstance(oid, x509.ObjectIdentifier) and not name.startswith("_")
    }


#: Signature algorithms: ``ECDSA with SHA-256``.
SIGNATURES = {
    "1.2.840.113549.1.1.2": "RSA with MD2",
    "1.2.840.113549.1.1.3": "RSA with MD4",
    "1.3.14.3.2.3": "RSA with MD5",
    "1.3.14.3.2.27": "DSA with SHA-1",
    "1.3.14.3.2.29": "RSA with SHA-1",
    "1.2.840.10045.4.1": "ECDSA with SHA-1",
    "1.2.156.10197.1.501": "SM2 with SM3",
    "1.2.643.2.2.3": "GOST R 34.10-2001",
    "1.2.643.7.1.1.3.2": "GOST R 34.10-2012 (256 bits)",
    "1.2.643.7.1.1.3.3": "GOST R 34.10-2012 (512 bits)",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
} | _names(SignatureAlgorithmOID)
#: Kinds of keys: ``EC``, ``RSA``.
KEYS = {
    "1.2.840.10046.2.1": "DH",
    "1.2.643.2.2.19": "GOST R 34.10-2001",
    "1.2.643.7.1.1.1.1": "GOST R 34.10-2012 (256 bits)",
    "1.2.643.7.1.1.1.2": "GOST R 34.10-2012 (512 bits)",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
    "2.16.840.1.101.3.4.4.1": "ML-KEM-512",
    "2.16.840.1.101.3.4.4.2": "ML-KEM-768",
    "2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
} | (
    _names(PublicKeyAlgorithmOID)
    | {
        PublicKeyAlgorithmOID.EC_PUBLIC_KEY.dotted_string: "EC",
        PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5.dotted_string: "RSA",
    }
)
HASHES = {
    "1.2.840.113549.2.5": "MD5",
    "1.3.14.3.2.26": "SHA-1",
    "2.16.840.1.101.3.4.2.1": "SHA-256",
    "2.16.840.1.101.3.4.2.2": "SHA-384",
    "2.16.840.1.101.3.4.2.3": "SHA-512",
    "2.16.840.1.101.3.4.2.4": "SHA-224",
    "2.16.840.1.101.3.4.2.5": "SHA-512/224",
    "2.16.840.1.101.3.4.2.6": "SHA-512/256",
    "2.16.840.1.101.3.4.2.7": "SHA3-224",
    "2.16.840.1.101.3.4.2.8": "SHA3-256",
    "2.16.840.1.101.3.4.2.9": "SHA3-384",
    "2.16.840.1.101.3.4.2.10": "SHA3-512",
}
CURVES = {
    "1.2.840.10045.3.1.1": "secp192r1",
    "1.2.840.10045.3.1.7": "secp256r1",
    "1.3.132.0.10": "secp256k1",
    "1.3.132.0.33": "secp224r1",
    "1.3.132.0.34": "secp384r1",
    "1.3.132.0.35": "secp521r1",
    "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1",
    "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
    "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
    "1.2.156.10197.1.301": "SM2",
}

#: Types of attributes in names, as RFC 4514 section 3 and RFC 4519 call them, else OpenSSL.
NAME_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.3": "mail",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.18": "postOfficeBox",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
    "2.5.4.97": "organizationIdentifier",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
    "1.2.643.3.131.1.1": "INN",
    "1.2.643.100.1": "OGRN",
    "1.2.643.100.3": "SNILS",
}
#: What a CSR carries besides extensions.
REQUEST_ATTRIBUTES = {
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.7": "challengePassword (not shown)",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.2.840.113549.1.9.15": "smimeCapabilities",
    "1.3.6.1.4.1.311.13.2.1": "enrollmentNameValuePair",
    "1.3.6.1.4.1.311.13.2.2": "enrollmentCSPProvider",
    "1.3.6.1.4.1.311.13.2.3": "osVersion",
    "1.3.6.1.4.1.311.21.20": "requestClientInfo",
}
#: The attributes of a CSR that ask for extensions: PKCS #9's, and Microsoft's.
EXTENSION_REQUESTS = ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14")

EXTENSIONS = {
    "2.5.29.9": "subjectDirectoryAttributes",
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.15": "keyUsage",
    "2.5.29.16": "privateKeyUsagePeriod",
    "2.5.29.17": "subjectAltName",
    "2.5.29.18": "issuerAltName",
    "2.5.29.19": "basicConstraints",
    "2.5.29.20": "cRLNumber",
    "2.5.29.21": "cRLReason",
    "2.5.29.24": "invalidityDate",
    "2.5.29.27": "deltaCRLIndicator",
    "2.5.29.28": "issuingDistributionPoint",
    "2.5.29.29": "certificateIssuer",
    "2.5.29.30": "nameConstraints",
    "2.5.29.31": "cRLDistributionPoints",
    "2.5.29.32": "certificatePolicies",
    "2.5.29.33": "policyMappings",
    "2.5.29.35": "authorityKeyIdentifier",
    "2.5.29.36": "policyConstraints",
    "2.5.29.37": "extKeyUsage",
    "2.5.29.46": "freshestCRL",
    "2.5.29.54": "inhibitAnyPolicy",
    "2.5.29.60": "expiredCertsOnCRL",
    "1.3.36.8.3.3": "admission",
    "1.3.6.1.5.5.7.1.1": "authorityInfoAccess",
    "1.3.6.1.5.5.7.1.3": "qcStatements",
    "1.3.6.1.5.5.7.1.7": "ipAddrBlocks",
    "1.3.6.1.5.5.7.1.8": "autonomousSysIds",
    "1.3.6.1.5.5.7.1.11": "subjectInfoAccess",
    "1.3.6.1.5.5.7.1.12": "logotype",
    "1.3.6.1.5.5.7.1.14": "proxyCertInfo",
    "1.3.6.1.5.5.7.1.24": "tlsFeature",
    "1.3.6.1.5.5.7.48.1.2": "ocspNonce",
    "1.3.6.1.5.5.7.48.1.3": "ocspCRL",
    "1.3.6.1.5.5.7.48.1.4": "ocspResponse",
    "1.3.6.1.5.5.7.48.1.5": "ocspNoCheck",
    "1.3.6.1.5.5.7.48.1.6": "ocspArchiveCutoff",
    "1.3.6.1.5.5.7.48.1.7": "ocspServiceLocator",
    "1.3.6.1.5.5.7.48.1.9": "ocspExtendedRevoke",
    "1.3.6.1.4.1.11129.2.4.2": "signedCertificateTimestamps",
    "1.3.6.1.4.1.11129.2.4.3": "precertificatePoison",
    "1.3.6.1.4.1.11129.2.4.5": "ocspSignedCertificateTimestamps",
    "1.3.6.1.4.1.311.20.2": "certificateTemplateName",
    "1.3.6.1.4.1.311.21.1": "caVersion",
    "1.3.6.1.4.1.311.21.2": "previousCaCertificateHash",
    "1.3.6.1.4.1.311.21.4": "nextCrlPublish",
    "1.3.6.1.4.1.311.21.7": "certificateTemplate",
    "1.3.6.1.4.1.311.21.10": "applicationPolicies",
    "1.2.840.113549.1.9.15": "smimeCapabilities",
    "1.2.840.113533.7.65.0": "entrustVersion",
    "2.16.840.1.113730.1.1": "netscapeCertType",
    "2.16.840.1.113730.1.2": "netscapeBaseUrl",
    "2.16.840.1.113730.1.3": "netscapeRevocationUrl",
    "2.16.840.1.113730.1.4": "netscapeCaRevocationUrl",
    "2.16.840.1.113730.1.7": "netscapeRenewalUrl",
    "2.16.840.1.113730.1.8": "netscapeCaPolicyUrl",
    "2.16.840.1.113730.1.12": "netscapeSslServerName",
    "2.16.840.1.113730.1.13": "netscapeComment",
}
USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH.dotted_string: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING.dotted_string: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION.dotted_string: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING.dotted_string: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING.dotted_string: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string: "anyExtendedKeyUsage",
    ExtendedKeyUsageOID.SMARTCARD_LOGON.dotted_string: "smartcardLogon",
    ExtendedKeyUsageOID.KERBEROS_PKINIT_KDC.dotted_string: "pkinitKDC",
    ExtendedKeyUsageOID.IPSEC_IKE.dotted_string: "ipsecIKE",
    ExtendedKeyUsageOID.BUNDLE_SECURITY.dotted_string: "bundleSecurity",
    ExtendedKeyUsageOID.CERTIFICATE_TRANSPARENCY.dotted_string: "certificateTransparency",
    "1.3.6.1.5.5.7.3.5": "ipsecEndSystem",
    "1.3.6.1.5.5.7.3.6": "ipsecTunnel",
    "1.3.6.1.5.5.7.3.7": "ipsecUser",
    "1.3.6.1.4.1.311.10.3.3": "microsoftServerGatedCrypto",
    "1.3.6.1.4.1.311.10.3.4": "encryptedFileSystem",
    "2.16.840.1.113730.4.1": "netscapeServerGatedCrypto",
}
POLICIES = {
    "2.5.29.32.0": "anyPolicy",
    "2.23.140.1.1": "extended validation",
    "2.23.140.1.2.1": "domain validated",
    "2.23.140.1.2.2": "organization validated",
    "2.23.140.1.2.3": "individual validated",
}
ACCESS = {
    "1.3.6.1.5.5.7.48.1": "OCSP",
    "1.3.6.1.5.5.7.48.2": "caIssuers",
    "1.3.6.1.5.5.7.48.3": "timeStamping",
    "1.3.6.1.5.5.7.48.5": "caRepository",
}
QUALIFIERS = {"1.3.6.1.5.5.7.2.1": "CPS", "1.3.6.1.5.5.7.2.2": "notice"}
OTHER_NAMES = {
    "1.3.6.1.4.1.311.20.2.3": "userPrincipalName",
    "1.3.6.1.5.5.7.8.5": "xmppAddr",
    "1.3.6.1.5.5.7.8.7": "SRVName",
    "1.3.6.1.5.5.7.8.9": "SmtpUTF8Mailbox",
    "1.3.6.1.5.2.2": "krb5PrincipalName",
}
