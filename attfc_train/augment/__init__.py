"""Changes to the images of a batch, on the device: masks, occlusion, colour, grey, blur, fewer pixels, JPEG."""
