"""What a learned prompt looks like."""
