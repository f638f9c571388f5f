"""Volume rendering: sampling along rays, proposals, occupancy, packed samples, compositing."""
