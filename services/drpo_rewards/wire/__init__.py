"""The contract as protobuf, for both ends of gRPC. The messages of each call are in `operations`."""
