"""What an operator uses: the doctor, and estimates of what replicas need of a machine."""
