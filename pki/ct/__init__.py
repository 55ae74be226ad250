"""Certificate transparency (RFC 6962, C2SP static-ct-api): receipts, entries, known logs, evidence against one."""
