"""Attribution methods: pure functions (predict, mask, inputs, targets, …) → scores [B, N]."""
