"""Policy in rules: expressions in CEL over a declared input, bounded before they are evaluated."""
