"""The ways in for people and programs; none imports another."""
