"""Human review: doubtful samples out to Label Studio, corrections back."""
