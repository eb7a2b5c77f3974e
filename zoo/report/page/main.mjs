// Starts every part of the page with the data that stand in it.

import { startCards } from "./cards.mjs";
import { byId } from "./dom.mjs";
import { startDrawing } from "./drawbox.mjs";
import { startLayers } from "./layers.mjs";
import { startModels } from "./models.mjs";
import { startPareto } from "./pareto.mjs";
import { startStudies } from "./studies.mjs";

const data = JSON.parse(byId("data").textContent);
startModels(data);
startPareto(data);
startDrawing(data.drawing);
startLayers(data);
startCards(data);
startStudies(data.studies, data.checkout);
document.documentElement.dataset.ready = "yes";
