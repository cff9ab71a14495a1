"""Files: movies, MRC, STAR, CryoSPARC particle files, gain references, metadata, particle shards, PNG.

What lies in the microscope's folder is only ever read. Everything written is written to a temporary name and renamed.
`frazil.io.movies` (structure checks) and `frazil.io.metadata` import without numpy, as the ingest service needs them to.
"""
