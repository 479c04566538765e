"Faults found by using it: one test an entry, and other members of its kind"
import pytest, torch
from tuning import *
from fastai_bayes.all import *

lrs = dict(lr=(1e-3, 1e-1, 'log'))

# 1. Callback state changes its type on resume

# 2. Study and folder drift apart

# 3. `storage=` on an ordinary file

# 4. A resumed epoch that cancels at once

# 5. A foreign study folder

# 6. A damaged `best.pth` of the winner

# 7. Not measured is not diverged

# 8. The step is the epoch trained

# 9. A hyperparameter without effect

# 10. Loaders of a class of one's own

# 11. Data and `n_epoch` change under a study's name; `extend=True`

# 12. The clock, bound fits, instances of samplers and pruners

# 13. Threads, nesting, and callbacks that change the state dict

# 14. Bit for bit with Optuna's samplers

# 15. Impossible combinations

# 16. Finite spaces

# 17. The probe takes one step

# 18. `$` in labels

# 19. Sizes that never end

# 20. The recorder after tuning

# 21. The callback as a drop-in

# 22. Several hosts

# 23. What reading the code showed
