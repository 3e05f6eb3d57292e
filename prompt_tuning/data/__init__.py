"""Turns text into batches of token ids, through SeqIO."""
