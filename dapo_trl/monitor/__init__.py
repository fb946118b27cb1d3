"""What a person learns of a run while it goes on."""
