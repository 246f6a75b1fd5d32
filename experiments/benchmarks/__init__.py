"""The time of one iteration beside scikit-learn."""
