"""Generated stubs of the contract in protos/; never edited."""
