"""How every study runs; knows no study."""
