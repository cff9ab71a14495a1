"""What pickers share: the reduced micrograph, its peaks, and how many of them noise explains."""
