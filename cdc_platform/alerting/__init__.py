"""Who is alerted, of what, and when."""
