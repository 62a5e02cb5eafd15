"""What runs in the trainer processes, and the files they write. Imports without curifactory."""
