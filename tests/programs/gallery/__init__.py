"""Programs in the manner of tutorials and textbooks, each with rows from it, and what every corner makes of them."""
