"""What an operator uses: the doctor, and what replicas need of a machine."""
