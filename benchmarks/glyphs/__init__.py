"""A benchmark set of many real identities: an identity is a Han character, an image is that character in one font."""
