"""The documentation: pages, and in `docs.generate` what makes parts of them."""
