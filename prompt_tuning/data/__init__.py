"""From text to batches of token ids, through SeqIO."""
