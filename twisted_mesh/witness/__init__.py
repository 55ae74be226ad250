"""A witness of logs (C2SP tlog-witness): cosigns what extends what it saw, and keeps what contradicts that."""
