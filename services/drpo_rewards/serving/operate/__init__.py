"""Checks for operators: the doctor, and estimates of the resources that replicas need."""
