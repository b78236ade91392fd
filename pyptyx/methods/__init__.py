"""Direct methods: numbers and arrays in, arrays out."""
