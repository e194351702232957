"""What a model is asked, and what it should have answered."""
