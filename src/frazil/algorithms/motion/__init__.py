"""Motion correction: how the specimen moved during the exposure, and sums of frames brought into register.

`correct.correct_movie` is the whole of it. A movie is read frame by frame, twice: anything with a `shape` of
`(frame, y, x)` that gives frame t as `movie[t]` will do, a numpy array of the recorded type first of all.
"""
