"""The figures printed in the paper, to compare measured ones with.

References:
    CP-NAS, Tables 1 to 3. Not all columns agree: 138.27 / 4.85 is 28.51, not 27.93.
"""

# CIFAR-10: test error in percent, parameters in millions, bits of weights and of activations.
TABLE_1 = {
    "WRN-22": (5.04, 4.33, 32, 32),
    "DARTS": (2.83, 3.4, 32, 32),
    "PC-DARTS": (2.78, 3.5, 32, 32),
    "WRN-22 (PCNN)": (5.69, 4.33, 1, 32),
    "BNAS (PCNN)": (3.94, 2.6, 1, 32),
    "BNAS (PCNN, larger)": (3.47, 4.6, 1, 32),
    "WRN-22 (BONN), 1-bit": (8.07, 4.33, 1, 1),
    "BNAS† (beta_P = 0)": (8.29, 4.5, 1, 1),
    "CP-NAS (Small)": (6.5, 2.9, 1, 1),
    "CP-NAS (Medium)": (5.72, 4.4, 1, 1),
    "CP-NAS (Large)": (4.73, 10.6, 1, 1),
}


# ImageNet: top-1 and top-5 accuracy in percent, then as in Table 1.
TABLE_2 = {
    "ResNet-18": (69.3, 89.2, 11.17, 32, 32),
    "PNAS": (74.2, 91.9, 5.1, 32, 32),
    "DARTS": (73.1, 91.0, 4.9, 32, 32),
    "PC-DARTS": (75.8, 92.7, 5.3, 32, 32),
    "ResNet-18 (PCNN)": (63.5, 85.1, 11.17, 1, 32),
    "BNAS (PCNN)": (71.3, 90.3, 6.2, 1, 32),
    "ResNet-18 (Bi-Real Net)": (56.4, 79.3, 11.17, 1, 1),
    "ResNet-18 (PCNN), 1-bit": (57.5, 80.0, 11.17, 1, 1),
    "ResNet-18 (BONN)": (59.3, 81.5, 11.17, 1, 1),
    "CP-NAS *": (64.3, 85.6, 12.5, 1, 1),
    "CP-NAS **": (66.5, 86.8, 12.5, 1, 1),
}


# CIFAR-10: Mbit, MFLOPs, memory saving and speedup; the row that gives only bounds is left out.
TABLE_3 = {
    "WRN-22": (138.27, 647.70, 1.0, 1.0),
    "WRN-22 (BONN), 1-bit": (5.71, 17.03, 24.19, 28.03),
    "CP-NAS (Small)": (3.32, 12.89, 41.56, 50.24),
    "CP-NAS (Medium)": (4.85, 18.30, 27.93, 35.39),
    "CP-NAS (Large)": (11.51, 38.67, 12.01, 16.75),
}


# The search's cost on CIFAR-10 and on ImageNet, in GPU-days.
SEARCH_COST = {"cifar10": 0.1, "imagenet2012": 2.8}
