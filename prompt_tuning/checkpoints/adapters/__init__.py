"""What methods have trained: our prompt and adapter files, PEFT's and T5X's."""
