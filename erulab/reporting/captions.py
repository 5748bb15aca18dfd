"""What each plot shows, in a sentence: its caption, and its description for a reader who cannot see it."""

CAPTIONS = {
    "robustness": "Knowledge left without an attack and after each one. The green band is the margin.",
    "knowledge": "What target, unlearned model and oracle know, by suite.",
    "depth": "How much of a forgotten fact the target cannot read from the unlearned model's states, by layer.",
    "heat": "Knowledge left by attack and metric. Hatched cells say nothing about robustness.",
    "relearning": "The three models before and after relearning, by the number of rows relearned.",
    "learning": "The three models along the attacker's steps.",
    "budget": "Knowledge left after each valid setting and attempt by its cost, and the highest value up to each cost.",
    "trajectory": "Knowledge left against utility, step by step.",
    "training": "The unlearning run, step by step.",
    "requests": "The model before the first request and after each one.",
    "trade_off": "Knowledge left against utility, a large point per arm. Best: in the green band, at full utility. "
    "Bars: 95 % intervals; of two seeds, both values.",
    "trajectories": "Knowledge left against utility along each run, from before training on. Large mark: the result.",
}
