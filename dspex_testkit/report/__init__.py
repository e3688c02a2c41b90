"""What a failure looked like: recorded always, drawn when a test fails, as text, as a page, and as a trace."""
