"""The bounded search for scaling factors: space, samplers, protocol and result, without Ray."""
