"""Generated gRPC stubs of protos/drpo/rewards/v1; made by protos/generate.py, not edited."""
