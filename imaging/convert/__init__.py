"""Write the disk inside one image as another image, digest included."""
