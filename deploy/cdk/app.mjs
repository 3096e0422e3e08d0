// Dropreel in a stack of yours: DROPREEL_TEMPLATE is the file that `make package` wrote.
import { App, Stack } from "aws-cdk-lib";
import { CfnInclude } from "aws-cdk-lib/cloudformation-include";

const app = new App();
const stack = new Stack(app, "dropreel");

new CfnInclude(stack, "Dropreel", {
  templateFile: process.env.DROPREEL_TEMPLATE ?? "../../out/package/template.yaml",
  // A parameter without a value here keeps its default, and `cdk deploy --parameters` sets it.
  parameters: { DailyRenderLimit: 100 },
});
