"""C: between hard and soft assignments: temperatures, the limit of small variances, the largest terms."""
