"""Small array functions that the algorithms share: Fourier transforms, filters, grids."""
