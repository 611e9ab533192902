"""Google Cloud: tokens, storage, images, errors, and the target that uses them."""
