"""The primer's model in Keras, as classic.py's worker: classic_keras.py fp32|bf16 FOLDER"""

import json
import os
import resource
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
from keras import layers

precision, folder = sys.argv[1], sys.argv[2]
data = np.load(f"{folder}/data.npz")
batch, side = int(data["batch"]), data["images"].shape[1]
keras.utils.set_random_seed(0)
if precision == "bf16":
    keras.mixed_precision.set_global_policy("mixed_bfloat16")


def build():
    image = keras.Input((side, side, 3))
    x = image
    for filters in (64, 128, 256):
        x = layers.Conv2D(filters, (3, 3), activation="relu")(x)
        x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Flatten()(x)
    words = keras.Input((100,))
    z = layers.LSTM(64)(layers.Embedding(10000, 64)(words))
    h = layers.Concatenate()([x, z])
    h = layers.Dense(128, activation="relu")(h)
    h = layers.Dense(64, activation="relu")(h)
    model = keras.Model([image, words], layers.Dense(1, activation="sigmoid")(h))
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


class Times(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.begun)


def use():
    return resource.getrusage(resource.RUSAGE_SELF)


x = data["images"].astype("float32") / 255
words, label = data["words"], data["label"].astype("float32")
model = build()
first = model.get_weights() if precision == "fp32" else None
sys.stdin.readline()
print(json.dumps({"ready": 1}), flush=True)
for line in sys.stdin:
    what, *number = line.split()
    if what == "save":
        counts, named = {}, {}
        for layer in model.layers:
            kind = type(layer).__name__
            index = counts[kind] = counts.get(kind, -1) + 1
            named |= {f"{kind}{index}.{k}": w for k, w in enumerate(layer.get_weights())}
        np.savez(f"{folder}/weights.npz", **named)
        answer = {}
    elif what == "logits":
        p = model.predict([x[: 2 * batch], words[: 2 * batch]], verbose=0)[:, 0].astype("float64")
        answer = {"logits": np.log(p / (1 - p)).tolist()}
    elif what == "curve":
        model = build()
        model.set_weights(first)
        history = model.fit(
            [x, words], label, batch_size=batch, epochs=int(number[0]), shuffle=False, verbose=0
        ).history
        answer = {"loss": history["loss"]}
    elif what == "train":
        times, before = Times(), use().ru_minflt
        some_x, some_words, some_labels = x[: 4 * batch], words[: 4 * batch], label[: 4 * batch]
        options = {"batch_size": batch, "epochs": 1, "verbose": 0, "callbacks": [times]}
        model.fit([some_x, some_words], some_labels, **options)
        answer = {
            "ms": 1e3 * float(np.median(times.seconds)),
            "rss_mb": use().ru_maxrss / 1024,
            "faults": (use().ru_minflt - before) / 4,
        }
    else:
        count, seconds = int(number[0]), []
        for _ in range(12 if count == 1 else 3):
            begun = time.perf_counter()
            model.predict_on_batch([x[:count], words[:count]])
            seconds.append(time.perf_counter() - begun)
        answer = {"ms": 1e3 * float(np.median(seconds))}
    print(json.dumps(answer), flush=True)
