"""A program as read: its sites, their roles, and the table of log joints."""
