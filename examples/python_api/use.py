"""Trains on a table, predicts and measures: `easytransfer.train` takes the flags of the command, `load` opens a run."""

import easytransfer

easytransfer.train(
    modelName="text_classify_bert",
    inputTable="examples/text_classify/train.tsv",
    inputSchema="text:str:1,label:str:1",
    firstSequence="text",
    labelName="label",
    checkpointDir="runs/lines",
)
model = easytransfer.load("runs/lines")
print(model(["The plot is a delight from start to end.", "The sound fails after a week."]))
print(model.evaluate("examples/text_classify/dev.tsv"))
