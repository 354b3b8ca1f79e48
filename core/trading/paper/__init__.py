"""A venue on paper: orders are filled from the quotes of a source, by stated models, and nobody is asked."""
