"""What is wrong with sources before anything is captured from them. Pure."""
