"""Workers in a cluster of machines (Ray): the child of the supervisor that speaks to it, and the actors."""
