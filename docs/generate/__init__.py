"""What is generated: pictures of signs and tutorials, the page of the commands."""
