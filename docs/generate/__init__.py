"""What is generated for these pages: pictures of signs, pictures of tutorials, lists of commands."""
